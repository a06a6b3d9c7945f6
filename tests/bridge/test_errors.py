from rejoinder.bridge.errors import BridgeError, BrokenStream, Unsupported, UpstreamError, cannot_take


def test_the_tree_says_whose_fault_it_is() -> None:
    assert issubclass(Unsupported, BridgeError)
    assert issubclass(UpstreamError, BridgeError)
    assert issubclass(BrokenStream, UpstreamError)
    assert not issubclass(UpstreamError, Unsupported)


def test_what_cannot_be_said_names_its_parameter() -> None:
    error = Unsupported("no", param="tools", code="invalid_value")
    assert (str(error), error.param, error.code) == ("no", "tools", "invalid_value")
    assert (Unsupported("no").param, Unsupported("no").code) == (None, None)


def test_what_an_upstream_has_no_place_for_is_in_the_input() -> None:
    error = cannot_take("audio", "it takes text only")
    assert (str(error), error.param) == ("this upstream cannot take audio: it takes text only", "input")
    assert error.code == "unsupported_value"


def test_an_upstream_without_a_status_of_its_own_is_a_bad_gateway() -> None:
    error = BrokenStream("cut")
    assert (error.status, error.code, error.param, error.retry_after) == (502, "server_error", None, None)
    full = UpstreamError("slow down", status=429, code="rate_limit_exceeded", param="model", retry_after=1.5)
    assert (full.status, full.code, full.param, full.retry_after) == (429, "rate_limit_exceeded", "model", 1.5)
    assert (error.transient, UpstreamError("no room", transient=True).transient) == (False, True)
