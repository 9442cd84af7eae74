"""Tells people how a run ended: one message to a webhook, where the cluster profile names one."""
