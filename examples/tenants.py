"""A service with a database for each customer: these sign up and leave while it runs.

The host name of a request says which tenant it is for. All tenants share the accounts, and notes belong to one.

Prints:
    POST signup.example /acme      -> 201 acme
    POST signup.example /globex    -> 201 globex
    POST acme.example   /buy milk  -> 201 1
    POST globex.example /buy rye   -> 201 1
    GET  acme.example   /          -> 200 buy milk
    GET  globex.example /          -> 200 buy rye
    DEL  signup.example /globex    -> 204
    GET  globex.example /          -> 404 no such tenant
    acme was asked 2 times; notified: acme: buy milk, globex: buy rye
"""

import tempfile
from pathlib import Path
from typing import Any

import microorm
from microorm import Field, Model, UnknownAlias, field, receiver
from microorm.routers import Tenants, current_tenant, tenant
from microorm.signals import post_save

databases = microorm.default_databases
notified: list[str] = []


class Account(Model, app="accounts"):
    """A customer, in the database that all tenants share."""

    name: Field[str] = field(max_length=30, unique=True)
    requests: Field[int] = field(default=0)


class Note(Model, app="notes"):
    """What a customer has written, in a database of its own."""

    text: Field[str] = field(max_length=200)


@receiver(post_save, sender=Note, delivery="on_commit")
def notify(instance: Note, **kwargs: Any) -> None:
    """Run after the commit; the tenant of the note is the current one."""
    notified.append(f"{current_tenant()}: {instance.text}")


class Service:
    """A WSGI application; the files of the tenants are in *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in Account.objects.scalars(
            Account.name
        ):  # those that signed up before this process has started
            self.add(name)

    def add(self, name: str) -> None:
        """Add the database of a tenant. Raises `ConfigurationError` for what is no alias."""
        databases.add(name, f"sqlite:///{self.folder}/{name}.db")
        microorm.create_all(using=name)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Answer a request."""
        name, method = environ["HTTP_HOST"].partition(".")[0], environ["REQUEST_METHOD"]
        path = environ["PATH_INFO"].removeprefix("/")
        status, text = self.manage(method, path) if name == "signup" else self.serve(name, method, path)
        start_response(status, [])
        return [text.encode()]

    def manage(self, method: str, name: str) -> tuple[str, str]:
        """Let a customer sign up, or leave."""
        if method == "POST":
            with microorm.atomic():  # an invalid name leaves no account
                Account(name=name).save()
                self.add(name)
            return "201", name
        databases.remove(name)
        Account.objects.get(name=name).delete()
        return "204", ""

    def serve(self, name: str, method: str, path: str) -> tuple[str, str]:
        """Answer a request to a tenant: everything in the block works on its database."""
        try:
            scope = tenant(name)
        except UnknownAlias:
            return "404", "no such tenant"
        with scope:
            Account.objects.filter(name=name).update(requests=Account.requests + 1)
            if method == "POST":
                return "201", str(Note(text=path).save().id)
            return "200", ", ".join(Note.objects.order_by(Note.id).scalars(Note.text))


def main() -> None:
    """Send some requests to the service."""
    requests = """POST signup.example /acme | POST signup.example /globex | POST acme.example /buy milk
        POST globex.example /buy rye | GET acme.example / | GET globex.example /
        DEL signup.example /globex | GET globex.example /"""
    with tempfile.TemporaryDirectory() as folder:
        router = Tenants(shared=["accounts"])
        microorm.configure(f"sqlite:///{folder}/shared.sqlite", routers=[router], max_connections=10)
        microorm.create_all()
        service = Service(Path(folder))
        for request in requests.replace("\n", "|").split("|"):
            method, host, path = request.strip().split(" ", 2)
            environ = {"REQUEST_METHOD": method, "HTTP_HOST": host, "PATH_INFO": path}
            status: list[str] = []
            body = b"".join(service(environ, lambda code, headers, status=status: status.append(code)))
            print(f"{method:4} {host:14} {path:10} -> {status[0]} {body.decode()}".rstrip())
        asked = Account.objects.get(name="acme").requests
        print(f"acme was asked {asked} times; notified: {', '.join(notified)}")
        microorm.close()


if __name__ == "__main__":
    main()
