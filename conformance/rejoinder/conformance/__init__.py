"""A judge for any server that speaks the Responses API.

It asks over HTTP, reads what comes with eyes of its own, and shares no code with the rest of the project. Any model
that answers will do: nothing depends on its words.

    python -m rejoinder.conformance http://127.0.0.1:8080/v1 --model demo

Every rule is one case in one of the `about_…` files. A case sees only what its rule speaks of, so that one broken rule
is one failed case.
"""
