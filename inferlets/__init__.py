"""The programs that travel with pie-trio: one folder each, with a manifest, its source and a README line."""
