typedef int ps_placeholder; /* until the first real file */
