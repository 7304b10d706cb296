"""Which sibling, and which model, honours which key. A key that would be ignored is told, not passed over."""

from shared.config.schema import Config, ModelConfig, get_value, list_keys
from shared.errors import UserError
from shared.machine.interpreters import list_siblings
from shared.models import LIBRARY_SETTINGS, MODELS, OPTIONAL_SETTINGS, split_library_name

TITLES = {"lightning": "PyTorch Lightning", "keras": "Keras"}


def require_support(config: Config, sibling: str) -> list[str]:
    """Remarks about keys that `sibling` does not honour and that only change speed.

    Raises:
        UserError: for a key or a value that would change the experiment and that only the other sibling honours.
    """
    remarks, defaults = [], Config()
    for dotted, item in list_keys().items():
        value, facts = get_value(config, dotted), item.metadata
        owner = next((owner for start, owner in facts["only_choices"].items()
                      if value == start or (start in facts["prefixes"] and str(value).startswith(start))), "")
        if facts["only"] and value != get_value(defaults, dotted):
            owner = facts["only"]
        if owner in ("", sibling):
            continue
        words = f"{dotted}={value} is for {TITLES[owner]} alone"
        if not facts["speed"]:
            other = f", or train with {owner}_project" if owner in list_siblings() else ""
            raise UserError(f"{words}; leave it out{other}")
        remarks.append(f"{words} and is left out here; it would change nothing but speed")
    return remarks


def require_model_settings(model: ModelConfig) -> None:
    """Raise `UserError` for a key of the section `model` that this model does not honour."""
    library = split_library_name(model.name)
    honoured = LIBRARY_SETTINGS[library[0]] if library else MODELS[model.name].settings
    # Runs of a published checkpoint have these two in their config, whichever model it is.
    implied = {"stem": "large", "patch_size": 16} if model.pretrained.lower() != "false" else {}
    for name in OPTIONAL_SETTINGS:
        value = getattr(model, name)
        if name in honoured or value in (getattr(ModelConfig, name), implied.get(name)):
            continue
        others = [other for other, entry in MODELS.items() if name in entry.settings]
        why = ": its BatchNorm would update its statistics twice in a repeated forward pass" \
            if name == "gradient_checkpointing" else ""
        raise UserError(f"model.{name}={str(value).lower()} is not for model.name={model.name}{why}; leave it out, or "
                        f"take one of {', '.join(others)}")
