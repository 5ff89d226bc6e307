"""Lists that are read page by page, in the order of a time: how a page says where the next one begins."""
