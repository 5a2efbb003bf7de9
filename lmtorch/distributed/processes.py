"""A group of processes: what they do each by itself, what they add up, and how they fail together.

Every process runs the same loop on the same numbers, and only what is summed over rows is sent.
Two rules keep them from waiting for each other for ever. Before anything is sent, all say in one
small exchange where they are and whether they got there: so that an exception on one of them ends
the step on all. And what decides how the loop goes on is taken from the first process, as the same
sums may be rounded in another way on another machine.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from .._errors import InputError, RankError
from .failures import culprits

T = TypeVar("T")
FINE, FAILED, CHANGED = 0, 1, 2  # what a process says of itself
PANEL = 2**19  # numbers of a triangle that are sent together


class Said(NamedTuple):
    """What all processes have said in one exchange."""

    numbers: Tensor  # (processes, count) float64, on the CPU
    failed: tuple[int, ...]  # those that have failed, by their place in the group
    changed: bool  # all of these because their rows have changed


class Processes:
    """A process group of `torch.distributed`, of which this process is a member.

    Args:
        group: as `torch.distributed.new_group` returns it, or `torch.distributed.group.WORLD`.

    Raises:
        InputError: there is no such group here, or this process is not in it.
    """

    def __init__(self, group: Any) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise InputError(
                "process_group was given, and torch.distributed has not been started: call "
                "torch.distributed.init_process_group(...) first, and run the script by torchrun."
            )
        if not isinstance(group, dist.ProcessGroup):
            raise InputError(
                f"process_group={group!r} is no process group: give torch.distributed.group.WORLD, "
                "or what torch.distributed.new_group returns on its members."
            )
        self.group = group
        self.rank = dist.get_rank(group)
        if self.rank < 0:
            raise InputError("this process is not a member of process_group.")
        self.size = dist.get_world_size(group)
        self.names = dist.get_process_group_ranks(group)  # ranks in the world, as users know them
        self.device = torch.device("cpu")
        if "nccl" in dist.get_backend(group):
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.exchanges = 0
        self.told: BaseException | None = None  # of which the others know

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the group of all processes, which every process knows; no other can be."""
        if self.group is not dist.group.WORLD:
            raise TypeError("a process group other than WORLD cannot be pickled.")
        return _of_world, (self.exchanges,)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Processes":
        """The same group, which a copied optimizer shares as well."""
        return _of(self.group, self.exchanges)

    # ---- what each does by itself ------------------------------------------------------------

    def alone(self, name: str, work: Callable[[], T]) -> T:
        """Do what is of this process alone, and see whether all have done theirs.

        Args:
            name: what is done, for messages; it is the same on all processes.
            work: sends nothing.

        Returns:
            What `work` returns.

        Raises:
            RankError: it has failed on another process. What fails here is raised as it is if it
                says what is wrong with the input, or ends the program, otherwise as the cause.
        """
        return self.telling(name, work, lambda _: (), 0)[0]

    def telling(
        self, name: str, work: Callable[[], T], tell: Callable[[T], Sequence[float]], count: int
    ) -> tuple[T, Tensor]:
        """What `work` returns here, and so many numbers of what it returned on each process.

        Args:
            name: what is done, for messages; it is the same on all processes.
            work: sends nothing.
            tell: numbers of the result.
            count: of these numbers.

        Returns:
            The result, and (processes, count) float64.
        """
        try:
            found = work()
            numbers = list(tell(found))
        except BaseException as error:
            self._fail(name, error, count)
            raise
        said = self._say(name, FINE, numbers)
        if said.failed:
            raise self._of_others(name, said)
        return found, said.numbers

    def _fail(self, name: str, error: BaseException, count: int) -> None:
        """Tell the others that this process has failed, and raise what is to be raised for it."""
        code = CHANGED if getattr(error, "rows_changed", False) else FAILED
        self.told = error
        said = self._say(name, code, [0.0] * count)
        texts = self._exchanged(f"{type(error).__name__}: {error}")
        alike = said.changed or code == FAILED  # all go on in the same way, or none does
        if (isinstance(error, InputError) and alike) or not isinstance(error, Exception):
            return
        raise RankError(
            self.names[said.failed[0]], name, texts[said.failed[0]], rows_changed=said.changed
        ) from error

    def failed(self, error: BaseException) -> None:
        """Tell the others, who wait at their next exchange, that this process goes no further."""
        if error is self.told or isinstance(error, RankError):
            return  # all know it
        self._fail("", error, 0)

    def _of_others(self, name: str, said: Said) -> RankError:
        texts = self._exchanged("")
        first = said.failed[0]
        return RankError(self.names[first], name, texts[first], rows_changed=said.changed)

    def _say(self, name: str, code: int, numbers: Sequence[float]) -> Said:
        """Exchange where everybody is, whether it failed, and some numbers."""
        self.exchanges += 1
        place = float(zlib.crc32(name.encode()))
        # who fails outside of an exchange does not know how many numbers the others send
        own = torch.zeros(SLOTS + len(numbers[SLOTS:]), dtype=torch.float64)
        header = torch.tensor([self.exchanges, place, code, len(numbers)], dtype=torch.float64)
        own[: len(numbers)] = torch.tensor(list(numbers), dtype=torch.float64)
        own = torch.cat([header, own]).to(self.device)
        all_of = [torch.empty_like(own) for _ in range(self.size)]
        self._sent(lambda: dist.all_gather(all_of, own, group=self.group))
        table = torch.stack(all_of).cpu()
        failed = tuple(i for i, c in enumerate(table[:, 2].tolist()) if c != FINE)
        if not failed:
            self._same_place(name, table[:, :2], place)
        codes = [table[i, 2].item() for i in failed]
        return Said(
            table[:, 4 : 4 + len(numbers)], failed, bool(codes) and all(c == CHANGED for c in codes)
        )

    def _same_place(self, name: str, places: Tensor, mine: float) -> None:
        """Check that all processes are at the same point of the same loop.

        Raises:
            RankError: one is elsewhere.
        """
        for other, (number, place) in enumerate(places.tolist()):
            if number != self.exchanges or place != mine:
                raise RankError(
                    self.names[other],
                    name,
                    "it is at another point of the step than this process: every process has to "
                    "call step with the same options and the same number of terms",
                )

    # ---- what they add up --------------------------------------------------------------------

    def summed(self, name: str, work: Callable[[], Sequence[Tensor]]) -> list[Tensor]:
        """What `work` makes of the rows of each process, added over all of them."""
        return self.added(self.alone(name, work))

    def added(self, shares: Sequence[Tensor]) -> list[Tensor]:
        """Tensors of the same shapes on all processes, added; bit for bit the same on each."""
        return self.adding(shares)()

    def adding(self, shares: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """Begin to add, while other work is done; what is returned waits for the sums."""
        kinds = list(dict.fromkeys(share.dtype for share in shares))
        sums: dict[torch.dtype, Tensor] = {}
        pending = []
        for kind in kinds:
            flat = [share.reshape(-1) for share in shares if share.dtype == kind]
            sums[kind] = torch.cat(flat).to(self.device)
            pending.append(self._reducing(sums[kind]))

        def wait() -> list[Tensor]:
            for work in pending:
                self._sent(work.wait)
            places = {kind: total.split(_sizes(shares, kind)) for kind, total in sums.items()}
            parts = {kind: iter(found) for kind, found in places.items()}
            return [next(parts[s.dtype]).view(s.shape).to(s.device) for s in shares]

        return wait

    def add_triangle_(self, matrix: Tensor) -> Callable[[], None]:
        """Begin to add the lower triangle of a matrix in place, some rows at a time.

        Args:
            matrix: (n, n); above the diagonal are numbers without a meaning.

        Returns:
            What waits for the end.
        """
        n, begun, pending = len(matrix), 0, []
        while begun < n:
            end = min(n, begun + max(1, PANEL // n))
            panel = matrix[begun:end, :end].reshape(-1).to(self.device, copy=True)
            pending.append((begun, end, panel, self._reducing(panel)))
            begun = end

        def wait() -> None:
            for begin, stop, panel, work in pending:
                self._sent(work.wait)
                matrix[begin:stop, :stop] = panel.view(stop - begin, stop)
            pending.clear()

        return wait

    def _reducing(self, tensor: Tensor) -> Any:
        return self._sent(lambda: dist.all_reduce(tensor, group=self.group, async_op=True))

    # ---- what they tell each other -----------------------------------------------------------

    def first(self, tree: T) -> T:
        """What the first process has, in the place of what this one has: a tree of tensors."""
        leaves, spec = tree_flatten(tree)
        known = {id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}
        kinds = list(dict.fromkeys(leaf.dtype for leaf in known.values()))
        self.alone("decision", lambda: None)
        taken: dict[int, Tensor] = {}
        for kind in kinds:
            mine = [leaf for leaf in known.values() if leaf.dtype == kind]
            wide = torch.uint8 if kind == torch.bool else kind
            flat = torch.cat([leaf.detach().reshape(-1).to(wide) for leaf in mine])
            flat = flat.to(self.device, copy=True)
            self._told(flat, 0)
            parts = flat.split([leaf.numel() for leaf in mine])
            for leaf, part in zip(mine, parts, strict=True):
                taken[id(leaf)] = part.view(leaf.shape).to(leaf.device, kind)
        return tree_unflatten([taken.get(id(leaf), leaf) for leaf in leaves], spec)

    def gathered(self, name: str, work: Callable[[], T]) -> list[T]:
        """What `work` returns on each process, of any kind that can be pickled."""
        mine = self.alone(name, work)
        return self._exchanged(mine)

    def rows(self, block: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all processes, (rows, ...), one after the other: so many of each."""
        longest = max(counts)
        own = block.new_zeros(longest, *block.shape[1:], device=self.device)
        own[: len(block)] = block
        all_of = [torch.empty_like(own) for _ in range(self.size)]
        self._sent(lambda: dist.all_gather(all_of, own, group=self.group))
        parts = [part[:count] for part, count in zip(all_of, counts, strict=True)]
        return torch.cat(parts).to(block.device)

    def shown(self, block: Tensor, place: int, count: int) -> Tensor:
        """Show all processes the block of one.

        Args:
            block: of this process.
            place: of the one whose block is shown.
            count: of its rows.

        Returns:
            Its block, (count, ...).
        """
        if place == self.rank:
            sent = block.contiguous().to(self.device)
        else:
            sent = block.new_empty(count, *block.shape[1:], device=self.device)
        self._told(sent, place)
        return sent.to(block.device)

    def _told(self, tensor: Tensor, place: int) -> None:
        """Fill a tensor with what the process at a place has in it."""
        self._sent(lambda: dist.broadcast(tensor, self.names[place], group=self.group))

    def _exchanged(self, value: T) -> list[T]:
        every: list[Any] = [None] * self.size
        self._sent(lambda: dist.all_gather_object(every, value, group=self.group))
        return every

    def _sent(self, call: Callable[[], T]) -> T:
        """Send, or say who has not answered.

        Args:
            call: sends.

        Returns:
            What it returns.

        Raises:
            RankError: a process has ended, or has not come in the time that the group allows.
        """
        try:
            return call()
        except RuntimeError as error:  # what torch.distributed raises comes from it
            lost = culprits(self.group, self.rank, self.names, self.exchanges)
            raise RankError(lost, "", str(error).split("\n")[0], lost=True) from error


SLOTS = 8  # numbers that every exchange has room for


def _sizes(shares: Sequence[Tensor], kind: torch.dtype) -> list[int]:
    return [share.numel() for share in shares if share.dtype == kind]


def _of_world(exchanges: int) -> Processes:
    return _of(dist.group.WORLD, exchanges)


def _of(group: Any, exchanges: int) -> Processes:
    """A group in which so many exchanges were made: one process alone may have made a copy."""
    processes = Processes(group)
    processes.exchanges = exchanges
    return processes


def alone(processes: Processes | None, name: str, work: Callable[[], T]) -> T:
    """Do what is of this process alone; where there are others, what fails ends it on all."""
    return work() if processes is None else processes.alone(name, work)
