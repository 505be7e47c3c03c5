"""Routers for common layouts of databases: pass one to `configure(routers=[…])`."""

from microorm.routers.replicas import PrimaryReplica, ReplicaStats
from microorm.routers.shards import ShardError, Shards
from microorm.routers.tenants import Tenants, current_tenant, tenant

__all__ = ["PrimaryReplica", "ReplicaStats", "ShardError", "Shards", "Tenants", "current_tenant", "tenant"]
