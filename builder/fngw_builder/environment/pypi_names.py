"""Guessing which package of PyPI was meant: its index lists too many names to ask for all of them."""

from __future__ import annotations

from fngw_builder.environment.unsolvable import did_you_mean

#: Modules that are imported under another name than the one that they are installed by.
IMPORTED_AS = {
    "bs4": "beautifulsoup4",
    "crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "pymupdf",
    "git": "gitpython",
    "google-protobuf": "protobuf",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "magic": "python-magic",
    "mysqldb": "mysqlclient",
    "pil": "pillow",
    "psycopg2": "psycopg2-binary",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
#: What is asked for most, for misspelt names.
POPULAR = (
    "accelerate aiohttp altair anyio attrs beautifulsoup4 bokeh boto3 botocore cachetools catboost certifi "
    "celery click cloudpickle cryptography cython dask datasets diffusers django duckdb einops faiss-cpu "
    "fastapi flask fsspec gensim google-cloud-storage gradio grpcio gunicorn httpx huggingface-hub imageio "
    "jax jinja2 joblib jsonschema keras langchain lightgbm litellm loguru lxml markdown matplotlib mlflow "
    "mypy networkx nltk numba numpy onnx onnxruntime openai opencv-python opencv-python-headless orjson "
    "packaging pandas pillow plotly polars protobuf psutil psycopg pyarrow pydantic pydantic-settings pymongo "
    "pymupdf pytest python-dateutil python-dotenv python-multipart pytorch-lightning pyyaml pyzmq redis regex "
    "requests rich ruff s3fs safetensors scikit-image scikit-learn scipy seaborn sentence-transformers "
    "sentencepiece shap six spacy sqlalchemy starlette statsmodels streamlit sympy tensorboard tensorflow "
    "tiktoken timm tokenizers torch torchaudio torchvision tornado tqdm transformers typer typing-extensions "
    "ujson ultralytics urllib3 uvicorn vllm watchdog websockets werkzeug xarray xgboost zstandard"
).split()


def meant(name: str) -> str:
    """Return a hint at the name that was probably meant, or nothing.

    Args:
        name: normalised.

    Example:
        >>> meant("sklearn"), meant("reqests")
        ("did you mean 'scikit-learn'?", "did you mean 'requests'?")
    """
    return installed_as(name) or did_you_mean(name, POPULAR)


def installed_as(name: str) -> str:
    """Return a hint for the name of a module that is installed by another one, or nothing."""
    return f"did you mean {IMPORTED_AS[name]!r}?" if name in IMPORTED_AS else ""
