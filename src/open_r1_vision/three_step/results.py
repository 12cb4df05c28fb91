# SPDX-License-Identifier: Apache-2.0
"""Results of the three steps, and the JSONL file in which a run that was killed goes on.

A line is one row. It is written when the row's three steps are done, and the file only ever grows, so that whatever
kills the process costs the rows under way and no others. A row whose reasoner failed has its line too, with the first
two steps to go on from; the line of a later try follows, and the last line of an id counts. When a run ends, the file
is replaced by one that has each id once, in the order of the rows.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from open_r1_vision.files import short, write_whole
from open_r1_vision.rewards.answers import score_answer
from open_r1_vision.runs import list_changes
from open_r1_vision.statistics import Proportion, wilson_interval


@dataclass(frozen=True)
class Result:
    """What the three steps made of one row.

    Attributes:
        id: the row's.
        problem: the row's.
        num_images: images of the row.
        tentative: what step 1 wrote; None without images or without that step.
        caption: what step 2 wrote; None without images, or when the reply lacks the section of the caption.
        replies: what the reasoner wrote, one for each of its `n`; None where it failed. Empty where it was not asked.
        answers: what each reply answers; None where it holds no answer.
        answer: the one that most replies give, see :func:`majority`.
        failure: why there is no answer of the reasoner; None when there is at least one reply.
        num_cut: replies that the reasoner's limit of tokens cut; None where the reasoner does not say, as the policy.
            As the authors', they count where they hold an answer.
        score: of `answer` against the row's solution; None without solution, and after a failure.
    """

    id: str
    problem: str
    num_images: int = 0
    tentative: str | None = None
    caption: str | None = None
    replies: list[str | None] = field(default_factory=list)
    answers: list[str | None] = field(default_factory=list)
    answer: str | None = None
    failure: str | None = None
    num_cut: int | None = 0
    score: float | None = None

    @property
    def has_drafts(self) -> bool:
        """Whether the reasoner was asked, so that steps 1 and 2 are done."""
        return bool(self.replies)


@dataclass(frozen=True)
class Summary:
    """Counts of a run.

    Attributes:
        num_rows: rows that were asked for.
        accuracy: full marks among the rows that have a score; None without any.
        num_failed: rows whose reasoner failed, or whose images can't be read; not in the accuracy.
        num_unanswered: rows whose replies hold no answer; they score 0.
        num_cut: rows with a reply that the reasoner's limit of tokens cut; None where that is not known.
        num_without_caption: rows with images whose step 2 has no caption.
    """

    num_rows: int
    accuracy: Proportion | None
    num_failed: int
    num_unanswered: int
    num_cut: int | None
    num_without_caption: int

    def __str__(self) -> str:
        lines = [f"rows {self.num_rows}"]
        if self.accuracy:
            lines.append(f"accuracy {self.accuracy} of {self.accuracy.count} rows")
        cut = "not known" if self.num_cut is None else self.num_cut
        lines += [
            f"unanswered {self.num_unanswered}",
            f"cut by max_tokens {cut}",
            f"without caption {self.num_without_caption}",
            f"failed {self.num_failed}" + (": start the same command again to retry them" if self.num_failed else ""),
        ]
        return "\n".join(lines)


def summarise(results: Sequence[Result]) -> Summary:
    """Count results."""
    scores = [result.score for result in results if result.score is not None]
    asked = [result for result in results if result.failure is None]
    cuts = [result.num_cut for result in asked]
    return Summary(
        num_rows=len(results),
        accuracy=wilson_interval(scores) if scores else None,
        num_failed=len(results) - len(asked),
        num_unanswered=sum(result.answer is None for result in asked),
        num_cut=None if None in cuts else sum(cut != 0 for cut in cuts),
        num_without_caption=sum(result.num_images > 0 and result.caption is None for result in asked),
    )


def majority(answers: Sequence[str | None], problem_type: str | None = None, problem: str | None = None) -> str | None:
    """The answer that most replies give, in the words of the first that gives it; of equally many the first.

    Two answers are the same where one would earn full marks against the other, see
    :func:`open_r1_vision.rewards.answers.score_answer`.

    Args:
        answers: one for each reply; None casts no vote.
        problem_type: as for `score_answer`.
        problem: the question.
    """
    votes: dict[str, int] = {}
    for answer in answers:
        if answer is not None:
            same = (one for one in votes if score_answer(answer, one, problem_type, problem=problem) == 1)
            chosen = next(same, answer)
            votes[chosen] = votes.get(chosen, 0) + 1
    return max(votes, key=lambda one: votes[one], default=None)


def read_results(path: str | Path) -> dict[str, Result]:
    """The results of a file by id, of several lines of an id the last; a torn last line is left out.

    Raises:
        ValueError: no such file, or a line that is no result.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{str(path)!r} can't be read ({error}): give a file that this command wrote.") from error
    results = {}
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            result = Result(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"Line {number} of {str(path)!r} is no result of the three steps ({error}): give a file that this "
                "command wrote."
            ) from error
        results[result.id] = result
    return results


class ResultFile:
    """The file of a run, for one process. Nothing is written before `begin`.

    Args:
        path: where lines go; its folder is made. `<path>.settings.json` says what they were made with.
        settings: what decides the results. Lines that were made with others are refused.
        overwrite: `begin` drops what the file holds.

    Raises:
        ValueError: the lines were made with other settings, can't be read, or another process is writing.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self.path = Path(path)
        self._settings_path = Path(f"{self.path}.settings.json")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        self._settings = json.loads(json.dumps(settings, default=str))
        self._overwrite = overwrite
        #: The last result of each id.
        self.results: dict[str, Result] = {}
        try:
            self._lock()
            if not overwrite and self.path.stat().st_size:
                self._check_settings()
                self.results = {key: _slim(result) for key, result in read_results(self.path).items()}
        except BaseException:
            self._file.close()
            raise

    def begin(self) -> None:
        """Make the file ready for results: without a torn last line, or empty where it is overwritten."""
        data = b"" if self._overwrite else self.path.read_bytes()
        self._file.truncate(data.rfind(b"\n") + 1)
        write_whole(self._settings_path, json.dumps(self._settings, indent=1, sort_keys=True) + "\n")

    def add(self, results: Iterable[Result]) -> None:
        """Write results; afterwards they outlive the process."""
        results = list(results)
        self._file.write("".join(map(_line, results)).encode())
        self._file.flush()
        self.results.update({result.id: _slim(result) for result in results})

    def finish(self, order: Iterable[str]) -> None:
        """Replace the file by one that has each id once: those of `order`, then the others. Nothing is added after."""
        results = read_results(self.path)
        places = {key: place for place, key in enumerate(order)}
        ids = sorted(results, key=lambda key: places.get(key, len(places)))
        text = "".join(_line(results[key]) for key in ids)
        if text.encode() != self.path.read_bytes():
            write_whole(self.path, text)

    def close(self) -> None:
        """Let other processes have the file."""
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # a process that ended in between may have replaced the file
            is_ours = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except BlockingIOError:
            is_ours = False
        if not is_ours:
            raise ValueError(f"Another process is writing {self.path}: wait for it to end, or set another output.")

    def _check_settings(self) -> None:
        try:
            before = json.loads(self._settings_path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.path} holds something, but what it was made with is not known ({error}): set another output, "
                "or --overwrite to replace it."
            ) from error
        changed = list_changes(before, self._settings, short, unset=None)
        if changed:
            raise ValueError(
                f"{self.path} was made with other settings: {'; '.join(changed)}. Set another output, or --overwrite "
                "to replace it."
            )


def _slim(result: Result) -> Result:
    """Without the reasoner's texts: with its thinking they are most of a line, and nothing here needs them again."""
    return replace(result, replies=[None] * len(result.replies))


def _line(result: Result) -> str:
    # escaped, so that no character of a reply ends a line
    return json.dumps(asdict(result)) + "\n"
