"""Two deployments that could never share an environment: one needs pydantic 1, the other pydantic 2.

fngw deploy examples/conflict/app.py
curl http://localhost:8000/old
curl http://localhost:8000/new
"""

import fngw


@fngw.deployment(pip=["pydantic==1.10.*"], route_prefix="/old")
def old():
    import pydantic

    class Point(pydantic.BaseModel):
        x: int

    return {"pydantic": pydantic.VERSION, "point": Point(x="1").dict()}


@fngw.deployment(pip=["pydantic==2.*"], route_prefix="/new")
def new():
    import pydantic

    class Point(pydantic.BaseModel):
        x: int

    return {"pydantic": pydantic.VERSION, "point": Point(x="1").model_dump()}


if __name__ == "__main__":
    old.deploy()
    new.deploy()
