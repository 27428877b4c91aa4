"""The local web page and its REST API: `pellucid serve`. Needs the extra `web`; importing it needs no torch."""
