typedef int worker_placeholder; /* until the first real file */
