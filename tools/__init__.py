"""Programs for those who work on microorm; `make` starts them."""
