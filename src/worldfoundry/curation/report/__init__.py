"""The page `report.html` of a clip dataset. `page.py` writes it; `page.html.j2`, `page.css` and `page.js` are what it is made of.

Comes in: the tables, all planned clips with their scores, and what is committed. Goes out: one file that loads nothing from anywhere.
`sections.py` holds what it lists, `thresholds.py` what its sliders move, `pictures.py` its thumbnails. Decided here: what is left
out of a page that would grow too large, which the page then says. The test that shows it best:
`tests/curation/report/test_controls.py`, which moves the sliders in a browser and compares with `curate select`.
"""
