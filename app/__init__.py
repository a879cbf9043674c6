"""The demo: one sentence synthesized with full attention and with the window, and what each step cost.

Run it with ``python -m app`` from the repository's root; :func:`app.page.build_app` takes any speech system.
"""
