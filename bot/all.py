"Everything of `bot`, in reading order"
