"""Records in the forms of others and back: COCO JSON, and the Parquet files of Hugging Face `datasets`."""
