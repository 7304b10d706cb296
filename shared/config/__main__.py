"""Print every key of the schema and which sibling honours it, as Markdown: python -m shared.config"""

from shared.config.help import tabulate_keys

if __name__ == "__main__":
    print(tabulate_keys().to_markdown())
