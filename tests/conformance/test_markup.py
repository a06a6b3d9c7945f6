from rejoinder.conformance.markup import Markup, choice, document, tag


def test_what_is_not_markup_is_escaped() -> None:
    assert tag("p", "<b>", Markup("<i>"), ['"', tag("b", "&")]) == "<p>&lt;b&gt;<i>&quot;<b>&amp;</b></p>"


def test_attributes_are_escaped_and_may_have_no_value() -> None:
    assert tag("a", class_='"x"', aria_label="<", open=True, hidden=False) == (
        '<a class="&quot;x&quot;" aria-label="&lt;" open></a>'
    )
    assert tag("meta", name="a") == '<meta name="a">'


def test_a_document_holds_its_style_and_may_load_nothing() -> None:
    told = document("A <title>", tag("main", "hello", id="rules")).decode()
    assert told.startswith('<!doctype html>\n<html lang="en"><head><meta charset="utf-8">')
    assert "<title>A &lt;title&gt;</title>" in told
    assert "default-src &#x27;none&#x27;" in told
    assert "prefers-color-scheme: dark" in told
    assert '<a href="#rules" class="skip">Skip to the rules</a><main id="rules">hello</main>' in told
    assert "http://" not in told
    assert "https://" not in told


def test_the_first_choice_is_made() -> None:
    told = choice("Show", "show", [("all", "all rules"), ("broken", "broken")])
    assert '<input type="radio" name="show" id="show-all" checked>all rules' in told
    assert '<input type="radio" name="show" id="show-broken">broken' in told
