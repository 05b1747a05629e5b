"""Self-contained HTML reports: one file, inline SVG, no script, no request to anywhere."""
