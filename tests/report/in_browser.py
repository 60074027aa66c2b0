"""A real browser, for the pages that this room and others make. Not here: what a page has to say."""

import html
import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["disable-background-networking", "disable-component-update", "disable-sync", "disable-quic", "no-first-run"]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", *(f"--{flag}" for flag in QUIET)]
MEASURE = """<script>addEventListener('load', () => {
  const inner = document.querySelector('iframe').contentDocument, pictures = [...inner.images];
  const shown = pictures.filter(p => p.naturalWidth > 0), root = inner.documentElement;
  const wide = [...inner.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth);
  document.title = [root.clientWidth, root.scrollWidth, pictures.length, shown.length, wide.length].join(' ');
})</script>"""


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def show(page, width, folder):
    """Width seen and needed in px, pictures there and shown, tables to scroll; ``folder`` holds the browser's files."""
    # In an iframe of that width, as no headless window is narrower than 500 px.
    frame = f'<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{html.escape(page)}"></iframe>'
    (folder / "frame.html").write_text(f"<!doctype html><head><title></title>{MEASURE}</head>{frame}")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900", "--dump-dom"]
    dump = subprocess.run([*command, f"file://{folder}/frame.html"], capture_output=True, text=True, timeout=60)
    return tuple(map(int, re.search(r"<title>([\d ]+)</title>", dump.stdout)[1].split()))
