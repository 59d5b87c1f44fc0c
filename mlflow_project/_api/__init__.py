"""What `mlflow_project.api` is made of: options as keywords, results as data frames, a policy for a robot."""
