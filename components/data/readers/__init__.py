"""Readers know the formats of raw data: published data sets, own catalogues, tables, images and archives."""
