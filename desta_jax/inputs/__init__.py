"""From records to batches: prompts, the plan of rows, and the pipeline that reads them."""
