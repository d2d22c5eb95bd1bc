# What a host does when it is given nothing else: shows that it lives.
echo "$(uname -sr) on $(nproc) CPUs with $(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB"
