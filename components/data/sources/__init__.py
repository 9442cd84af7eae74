"""Where raw data comes from: directories, archives, web servers, buckets and Kaggle."""
