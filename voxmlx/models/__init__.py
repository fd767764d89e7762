"""Networks: arrays in, arrays out. They know no files, no tokenizer and no sampling."""
