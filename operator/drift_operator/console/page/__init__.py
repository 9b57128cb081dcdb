"""The page's files: hand-written HTML, CSS and modules, served as they are."""
