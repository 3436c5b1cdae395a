"""Write a synthetic clip for measurements: textured, moving, cut every few seconds, at any size and length.

python bench/make_clip.py OUT.mp4 --seconds 600 --size 1280x720 --fps 30
python bench/make_clip.py HOUR.mp4 --again OUT.mp4 --times 6
"""

from __future__ import annotations

import argparse
from fractions import Fraction

import av
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--codec", default="libx264")
    parser.add_argument("--gop", type=int, default=250)
    parser.add_argument("--again", help="copy the packets of this clip, one time after the other, in place of drawing")
    parser.add_argument("--times", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.again:
        repeat(arguments.again, arguments.file, arguments.times)
        return
    width, height = (int(side) for side in arguments.size.split("x"))
    generator = np.random.default_rng(0)
    # One large smooth texture per scene; the camera pans over it while a block moves.
    scenes = [texture(generator, height + 256, width + 256) for _ in range(12)]
    with av.open(arguments.file, "w") as container:
        stream = container.add_stream(arguments.codec, rate=arguments.fps, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = arguments.gop
        stream.codec_context.thread_type = "AUTO"
        for number in range(arguments.seconds * arguments.fps):
            second = number / arguments.fps
            scene = scenes[int(second / 7) % len(scenes)]
            pan = int(128 + 120 * np.sin(second / 5))
            image = scene[pan : pan + height, pan : pan + width].copy()
            x = int((width - 120) * (0.5 + 0.5 * np.sin(second)))
            image[height // 3 : height // 3 + 120, x : x + 120] = (200, 40, int(255 * (second % 1)))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, arguments.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def repeat(source: str, target: str, times: int) -> None:
    with av.open(target, "w") as output:
        begin = 0
        stream = None
        for _ in range(times):
            with av.open(source) as container:
                video = container.streams.video[0]
                stream = stream or output.add_stream_from_template(video)
                end = 0
                for packet in container.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + begin, packet.dts + begin
                    end = max(end, packet.pts + packet.duration)
                    packet.stream = stream
                    output.mux(packet)
                begin = end


def texture(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = generator.integers(0, 255, (height // 32 + 1, width // 32 + 1, 3), dtype=np.uint8)
    smooth = coarse.repeat(32, axis=0).repeat(32, axis=1)[:height, :width]
    return np.clip(smooth.astype(np.int16) + generator.integers(-12, 12, smooth.shape), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
