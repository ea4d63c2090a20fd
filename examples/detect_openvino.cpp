// Run an exported folder of kind `raw` on OpenVINO:
// detect_openvino model.xml SCORE_THR IOU_THR MAX_PER_IMG < pixels
// The pixels are the resized image, height x width x 3 bytes. mixdet.json states the size and the
// order of the channels. Each line of the output is a label, a score, and a box (x1, y1, x2, y2) in
// pixels of the resized image.
#include <cstdio>
#include <cstdlib>
#include <openvino/openvino.hpp>

#include "boxes.hpp"

int main(int argc, char** argv) {
    if (argc != 5) return 2;
    const Postprocess postprocess{std::strtof(argv[2], nullptr), std::strtof(argv[3], nullptr),
                                  std::strtoul(argv[4], nullptr, 10)};
    // Without the precision hint, OpenVINO computes in bfloat16 on CPUs that support it. The
    // boxes would then be wrong by some pixels.
    auto request = ov::Core()
                       .compile_model(argv[1], "CPU", ov::hint::inference_precision(ov::element::f32))
                       .create_infer_request();
    auto image = request.get_input_tensor();
    if (std::fread(image.data<uint8_t>(), 1, image.get_size(), stdin) != image.get_size()) return 1;
    request.infer();
    const auto boxes = request.get_output_tensor(0), scores = request.get_output_tensor(1);
    const auto shape = scores.get_shape();  // 1, anchors, classes
    for (const Box& box :
         decode(boxes.data<float>(), scores.data<float>(), shape[1], shape[2], postprocess))
        std::printf("%zu %g %g %g %g %g\n", box.label, box.score, box.x1, box.y1, box.x2, box.y2);
}
