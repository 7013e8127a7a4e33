typedef int proto_placeholder; /* until the first real file */
