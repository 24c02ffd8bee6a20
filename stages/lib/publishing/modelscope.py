"""Upload to ModelScope with its client; MODELSCOPE_ENDPOINT names another address.

Many files may be several commits. The client notes the files that are there, so the next run completes one
that died.
"""

from stages.lib.publishing import Upload

TOKEN_VARIABLE = "MODELSCOPE_API_TOKEN"
TOKEN_PAGE = "https://modelscope.cn/my/myaccesstoken"


def upload(what: Upload) -> str:
    """Make the repository if there is none, upload, and return its address."""
    from modelscope_hub import HubApi

    api = HubApi(token=what.token)
    if not api.repo_exists(what.repo, what.kind):
        visibility = "public" if what.is_public else "private"
        api.create_repo(what.repo, what.kind, visibility=visibility, license=what.licence)
    what.state.parent.mkdir(parents=True, exist_ok=True)
    api.upload_folder(
        what.repo, what.kind, what.folder, commit_message=what.message, use_cache=True, tracker_path=what.state
    )
    what.state.unlink(missing_ok=True)  # what is there may be removed there: the next upload looks again
    return f"{api.legacy.endpoint}/{what.kind}s/{what.repo}"
