"""What an experiment is: the schema of its keys, the rules they keep, and how files and the command line fill them.

schema.py   every key with its default, unit, meaning and the siblings that honour it
rules.py    what values may be, alone and together
support.py  which sibling and which model honour which key
values.py   what is written, as a value of the type that its key has
yaml_file.py  what is written in a file
reading.py  files, the command line, and how a config is written down
help.py     --help and the table of keys
command.py  what every command of the repository does alike
"""

from shared.config.reading import (
    build_config,
    find_config_file,
    flatten,
    format_yaml,
    load_config,
    parse_config,
    read_kept_config,
    read_kept_values,
    read_yaml,
    to_dict,
    to_yaml,
)
from shared.config.rules import find_direction, suggest, validate_config
from shared.config.schema import (
    AugmentConfig,
    Config,
    DatasetConfig,
    DebugConfig,
    HardwareConfig,
    ModelConfig,
    TrackingConfig,
    get_value,
    list_keys,
)
from shared.config.support import require_support

__all__ = ["AugmentConfig", "Config", "DatasetConfig", "DebugConfig", "HardwareConfig", "ModelConfig", "TrackingConfig",
           "build_config", "find_config_file", "find_direction", "flatten", "format_yaml", "get_value", "list_keys",
           "load_config", "parse_config", "read_kept_config", "read_kept_values", "read_yaml", "require_support",
           "suggest", "to_dict", "to_yaml", "validate_config"]
