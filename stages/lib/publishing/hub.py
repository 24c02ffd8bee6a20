"""Upload to a hub of the Hugging Face protocol with huggingface_hub; HF_ENDPOINT names another one than the main hub.

All files are one commit: either all of them are there, or none. Uploaded weights of a run that died are not sent again.
"""

from stages.lib.publishing import Upload

TOKEN_VARIABLE = "HF_TOKEN"
TOKEN_PAGE = "https://huggingface.co/settings/tokens"


def upload(what: Upload) -> str:
    """Make the repository if there is none, upload, and return its address."""
    from huggingface_hub import HfApi

    api = HfApi(token=what.token)
    address = api.create_repo(what.repo, repo_type=what.kind, private=not what.is_public, exist_ok=True)
    api.upload_folder(repo_id=what.repo, repo_type=what.kind, folder_path=what.folder, commit_message=what.message)
    return str(address)
