-- Merges of the large tables go column by column, with small buffers: a merge of the frames needs 40 MB less.
alter table frames modify setting vertical_merge_algorithm_min_columns_to_activate = 1,
    min_compress_block_size = 65536, max_compress_block_size = 65536;
alter table rollups modify setting vertical_merge_algorithm_min_columns_to_activate = 1,
    min_compress_block_size = 65536, max_compress_block_size = 65536;
