"""A judge for any server that speaks the Responses API.

It asks over HTTP, reads what comes with eyes of its own, and shares no code with the rest of the project. Any model
that answers will do: nothing depends on its words.

    python -m rejoinder.conformance http://127.0.0.1:8080/v1 --model demo

Every rule is a function in one of the `about_…` files, one file for each chapter. A rule sees only what it speaks of,
so that a server that breaks one rule breaks that one alone. README.md beside this package says how to run it, what the
reports hold and how to add a rule.
"""
