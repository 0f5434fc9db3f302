"""The programs that travel with pie-trio: a folder each, with manifest, source and README line."""
