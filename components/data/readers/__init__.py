"""What raw data looks like: published data sets, own catalogues, tables, images and archives."""
