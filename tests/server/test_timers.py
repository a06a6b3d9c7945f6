import asyncio

import pytest

from rejoinder.server.timers import after


async def test_a_block_that_takes_longer_is_told_once_and_a_quick_one_never() -> None:
    done: list[str] = []
    with after(0.01, lambda: done.append("slow")):
        await asyncio.sleep(0.05)
    with after(0.01, lambda: done.append("quick")):
        pass
    with pytest.raises(ValueError, match="boom"), after(0.01, lambda: done.append("broken")):
        raise ValueError("boom")
    await asyncio.sleep(0.03)
    assert done == ["slow"]
