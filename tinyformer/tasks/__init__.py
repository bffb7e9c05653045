"""Tasks that a pretrained model is fine-tuned for, one file each: how to read an example, its head, loss and metric."""

from .answer import Answer
from .classify import Classify, Pair
from .examples import Columns, Example, count_labels
from .model import TaskModel
from .regress import Regress
from .tag import Tag
from .task import Row, Task
from .text2text import Text2Text

# By name.
TASKS: dict[str, type[Task]] = {task.name: task for task in (Classify, Pair, Regress, Tag, Answer, Text2Text)}

__all__ = ["TASKS", "Columns", "Example", "Row", "Task", "TaskModel", "Text2Text", "count_labels"]
