"""``traces``: datasets of questions with reasoning and answers that others published."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.lib.params.base import Count, Section, Text
from stages.lib.params.tables import Gold, InFile, InHub, InModelScope, InPreset, Published, Where


class _Columns(Section):
    """The columns that each form may have; those that a table has are named."""

    answer: Text | None = None
    solution: Text | None = None
    id: Text | None = None
    model: Text | None = None


class SeparateColumns(_Columns):
    """Question, reasoning and response in a column each; ``message.content`` is a path into one."""

    form: Literal["separate"]
    question: Text
    reasoning: Text
    response: Text


class TaggedColumns(_Columns):
    """A question, and a text with the reasoning in tags, or a list of such texts.

    Of a list, the texts are taken that one of the lists in ``correct`` calls true; all of them where it names none.
    """

    form: Literal["tagged"]
    question: Text
    text: Text
    correct: list[Text]


class MessagesColumns(_Columns):
    """A list of messages, with role and content or with from and value; the last one has the reasoning in tags.

    The system text, a message or the column ``system``, is left out, or kept as the row's own.
    """

    form: Literal["messages"]
    messages: Text
    system: Literal["left_out", "kept"]


TraceColumns = Annotated[SeparateColumns | TaggedColumns | MessagesColumns, Field(discriminator="form")]


class TraceFormat(Section):
    """What a table holds. ``model`` wrote the answers, where no column names it; ``gold`` null: no gold answers."""

    columns: TraceColumns
    gold: Gold | None
    model: Text

    @model_validator(mode="after")
    def _gold_of_a_column(self) -> "TraceFormat":
        if (self.gold is None) != (self.columns.answer is None):
            raise ValueError("gold and columns.answer need each other. Name both, or neither and gold: null")
        return self


class FileTraces(InFile, TraceFormat):
    """Traces in a file, a glob or a URL."""


class HubTraces(InHub, TraceFormat):
    """Traces in a dataset of a hub."""


class ModelScopeTraces(InModelScope, TraceFormat):
    """Traces in a dataset of ModelScope."""


class TracesPreset(InPreset):
    """Traces that a file of stages/trace_presets describes."""


class TracePreset(Published, TraceFormat):
    """A file of stages/trace_presets: where traces are published, and what their columns hold."""


class Traces(Section):
    """Traces to train on: the ``first`` questions of those that ``where`` selects; null for all.

    ``samples_per_question`` is how many answers to a question are kept at most; null for all.
    """

    source: Annotated[FileTraces | HubTraces | ModelScopeTraces | TracesPreset, Field(discriminator="kind")]
    where: Where
    first: Count | None
    samples_per_question: Count | None
