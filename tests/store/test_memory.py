from rejoinder.store.memory import Memory


def test_the_least_recently_used_is_forgotten_first() -> None:
    memory: Memory[str, int] = Memory(30)
    for n, key in enumerate("abc"):
        memory.put(key, n, 10)
    memory.touch("a")
    memory.touch("unknown")
    memory.put("d", 3, 15)
    assert [memory.get(key) for key in "abcd"] == [0, None, None, 3]
    assert memory.weight == 25


def test_looking_is_not_using() -> None:
    memory: Memory[str, int] = Memory(2)
    memory.put("a", 1)
    memory.put("b", 2)
    assert memory.get("a") == 1
    memory.put("c", 3)
    assert memory.get("a") is None


def test_putting_again_replaces_value_and_weight() -> None:
    memory: Memory[str, int] = Memory(30)
    memory.put("a", 1, 10)
    memory.put("a", 2, 20)
    assert (memory.get("a"), memory.weight) == (2, 20)


def test_what_is_heavier_than_the_limit_pushes_nothing_out() -> None:
    memory: Memory[str, int] = Memory(30)
    memory.put("a", 1, 10)
    memory.put("b", 2, 31)
    assert (memory.get("a"), memory.get("b"), memory.weight) == (1, None, 10)
    memory.put("a", 3, 31)
    assert (memory.get("a"), memory.weight) == (None, 0)


def test_dropping_gives_the_weight_back() -> None:
    memory: Memory[str, int] = Memory(30)
    memory.put("a", 1, 10)
    memory.drop("a")
    memory.drop("a")
    assert (memory.get("a"), memory.weight) == (None, 0)
