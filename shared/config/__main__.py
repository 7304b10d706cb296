"""Print every key of the schema and which sibling honours it, as Markdown: python -m shared.config"""

from shared.config.help import tabulate_keys
from shared.machine.ending import report_errors

if __name__ == "__main__":
    report_errors(lambda: print(tabulate_keys().to_markdown()))
