"""Users: who replies to a policy in a dialogue, one file each (the role is farm.roles.users.User)."""
