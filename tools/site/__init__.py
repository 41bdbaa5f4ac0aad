"""The site: `python -m tools.site` (`make docs`) builds docs/ and what is generated beside it into build/site.

docs/ is Markdown that reads without the site. Pages are copied to build/pages, where links are turned to what the site
has of them; keys of conf/, public objects and notebooks become pages; Zensical makes HTML, and every link is checked.
"""
