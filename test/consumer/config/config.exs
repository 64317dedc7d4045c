import Config

# Options of the registry, for each application by its name.
config :workflow_metal_native_registry, Consumer.Shop, []
config :workflow_metal_native_registry, Consumer.Workflows, []

config :logger, level: :warning
