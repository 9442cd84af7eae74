"""This package sends one message to a webhook when a run has ended, if the cluster profile names one."""
