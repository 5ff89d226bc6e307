"""The BFF: REST and server-sent events for browsers, in front of the gateway. It owns nothing and decides nothing."""
