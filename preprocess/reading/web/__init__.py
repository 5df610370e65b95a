"""Web pages, web archives and dumps of wikis as documents."""
