from rejoinder.bridge.gemini_names import Names


def test_a_legal_name_stays() -> None:
    names = Names(("f", "_g", "a-b"))

    assert [names.on_wire(name) for name in ("f", "_g", "a-b")] == ["f", "_g", "a-b"]
    assert names.from_wire("a-b") == "a-b"


def test_a_name_begins_with_a_letter_or_an_underscore_on_the_wire() -> None:
    names = Names(("1st", "-x"))

    assert (names.on_wire("1st"), names.on_wire("-x")) == ("_1st", "_-x")
    assert (names.from_wire("_1st"), names.from_wire("_-x")) == ("1st", "-x")


def test_a_changed_name_is_not_that_of_another_function() -> None:
    names = Names(("1st", "_1st"))

    assert (names.on_wire("1st"), names.on_wire("_1st")) == ("__1st", "_1st")
    assert (names.from_wire("__1st"), names.from_wire("_1st")) == ("1st", "_1st")


def test_names_of_the_history_go_the_same_way_and_unknown_ones_come_back_as_they_are() -> None:
    names = Names(())

    assert names.on_wire("2nd") == "_2nd"
    assert names.from_wire("_2nd") == "_2nd"
