"""A trained model as a folder for the Hugging Face hub: weights, what timm needs to build the model, and a card."""
