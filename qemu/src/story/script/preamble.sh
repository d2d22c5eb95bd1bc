# The host's part of the story. What the deeds need to know comes from the kernel and from the probe.
probe=/freehold-probe
tree=/sys/firmware/devicetree/base

# All deeds have a block of 2 MiB to play with.
if [ "$1" != deeds ]; then
    exec $probe with-pages --order 9 -- sh "$0" deeds
fi
PAGE=$FREEHOLD_PAGES

# A number of two cells, from a file of the device tree, by its place.
number() {
    echo 0x$(hexdump -v -s "$2" -n 8 -e '8/1 "%02x"' "$1")
}

for node in $tree/reserved-memory/*; do
    [ -e "$node/no-map" ] && FREEHOLD=$(number "$node/reg" 0)
done
for node in $tree/memory*; do
    RAM=$(number "$node/reg" 0)
    FRAMES=$(($(number "$node/reg" 8) / 4096))
done

deed() {
    echo "story begin $1"
    (eval "$2") >/tmp/said 2>&1
    status=$?
    sed "s/^/story out $1 /" /tmp/said
    echo "story end $1 $status"
}

